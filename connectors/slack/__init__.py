"""Slack: messages, threads and files of a workspace, read through its Web API."""
