"""Jobs in a database: encrypted, shared by replicas under leases, and gone on with after a restart."""
