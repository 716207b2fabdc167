"""Opens and reads the files that a user names, within limits on their memory and time."""
