"""What every part stands on, with no knowledge of any monitor or vendor."""
