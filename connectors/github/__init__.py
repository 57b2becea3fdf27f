"""The github connector: repositories with their issues, discussions, releases and files."""
