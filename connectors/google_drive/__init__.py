"""Google Drive: its files, documents, spreadsheets, presentations and comments, read over HTTP."""
