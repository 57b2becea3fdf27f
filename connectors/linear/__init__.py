"""The linear connector: issues, comments, projects, documents and initiatives of a workspace."""
