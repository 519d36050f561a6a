"""The studio: find, learn and apply edits in the browser.  It draws, trains and compares by the library's functions alone."""
