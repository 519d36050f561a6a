"""What an SVG says and draws, for tests of charts and of pages that hold them."""

SVG = "{http://www.w3.org/2000/svg}"


def texts(tree):
    """What a chart's texts say, and their elements."""
    return [(text.text, text) for text in tree.iter(f"{SVG}text")]


def styles(tree, *parts):
    """The elements whose style has all the parts."""
    return [element for element in tree.iter() if all(part in element.get("style", "") for part in parts)]


def ids(tree):
    return [element.get("id") for element in tree.iter() if element.get("id")]
