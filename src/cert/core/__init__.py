"""What every part stands on: errors (more to come), with no knowledge of any monitor or vendor."""
