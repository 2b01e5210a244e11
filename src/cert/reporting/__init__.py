"""What the HTML reports of all monitors share: the page, its security policy, and how numbers are written."""
