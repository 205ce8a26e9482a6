"""How a package that is not here is installed."""


def install_advice(extra: str) -> str:
    """The end of a message about a missing package: how the extra that brings it is installed.

    PocketXL is on no package index yet, so the name alone would find nothing, or somebody else's package.
    """
    return f"install it in a checkout of PocketXL's source with: pip install -e '.[{extra}]'"
