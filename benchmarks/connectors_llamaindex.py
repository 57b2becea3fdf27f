"""Reads a repository with LlamaIndex's readers, and prints how many of each kind it found."""

from __future__ import annotations

import json
import sys

from llama_index.readers.github import (
    GithubClient,
    GitHubIssuesClient,
    GitHubRepositoryIssuesReader,
    GithubRepositoryReader,
)

url, token = sys.argv[1:]
issues = GitHubRepositoryIssuesReader(
    GitHubIssuesClient(token, base_url=url), owner="acme", repo="app"
).load_data(state=GitHubRepositoryIssuesReader.IssueState.ALL)
files = GithubRepositoryReader(
    GithubClient(token, base_url=url), owner="acme", repo="app", use_parser=False
).load_data(branch="main")
# It does not tell pull requests from issues.
pulls = sum("/pull/" in str(one.metadata) for one in issues)
print(json.dumps({"issues": len(issues) - pulls, "pulls": pulls, "files": len(files)}))
