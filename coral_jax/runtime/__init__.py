"""What the program runs on: compiling, memory, files, errors, versions.  Nothing in here knows what an edit is."""
