"""What the package is called, what it needs, and the name under which its connector is found."""

from setuptools import find_packages, setup

setup(
    name="my-connector",
    version="0.1.0",
    description="A connector for contextframe-beam",
    license="MIT",
    packages=find_packages(where="src"),
    package_dir={"": "src"},
    package_data={"my_connector": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=["contextframe-beam>=0.1.0"],
    extras_require={
        "dev": ["contextframe-beam[testing]", "mypy>=1.15", "pytest>=8", "ruff>=0.9"],
    },
    entry_points={
        "contextframe.connectors": [
            "my-connector = my_connector.connector:MyConnector",
        ],
    },
)
