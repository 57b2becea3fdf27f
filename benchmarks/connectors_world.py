"""A GitHub for the benchmark of connectors: the tests' world of one repository, in a process.

It prints its address, and then answers each line of its standard input with one line of JSON: what
was asked since the last one. A line `edit`, `comment` or `delete` makes that change.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.worlds.github_world import GitHub


def main(issues: int) -> None:
    with GitHub() as world:
        app = world.add("acme/app")
        for number in range(1, issues + 1):
            app.add_issue(f"Issue {number}", f"Body of {number}. " * 20, number % 5 == 0)
            if number % 3 == 0:
                app.add_comment(number, f"Comment on {number}. " * 10)
        for number in range(5, issues + 1, 25):
            app.add_review_comment(number, "Why?")
        files = {f"docs/{number}.md": f"# Page {number}\n" * 20 for number in range(20)}
        app.commit({"README.md": "# App\n", **files})
        changes = {
            "edit": lambda: app.edit_issue(7, title="Edited"),
            "comment": lambda: app.add_comment(9, "New"),
            "delete": lambda: app.commit({"docs/7.md": None}),
        }
        told = {
            "issues": sum(not one["pull"] for one in app.issues.values()),
            "pulls": sum(one["pull"] for one in app.issues.values()),
            "comments": len(app.comments),
            "line comments": len(app.review_comments),
            "files": len(app.commits[app.branches["main"]].files),
        }
        print(json.dumps({"url": world.url, "there": told}), flush=True)
        for line in sys.stdin:
            asked = sum(one.asked.template != "/rate_limit" for one in world.served)
            world.served.clear()
            changes.get(line.strip(), lambda: None)()
            print(json.dumps({"requests": asked}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
