"""Files that are pictures, whatever they are for."""

import warnings
from pathlib import Path
from typing import Any

from ..errors import IntegrityError, RequestError, StorageError
from ..install import needing
from .values import MOST_PIXELS


def open_picture(path: Path) -> Any:
    """A file of any format that Pillow reads, decoded; of an animation the first picture.

    Raises `StorageError` for a file that cannot be read, `IntegrityError` for one that is no whole picture, and
    `RequestError` for one of too many pixels.
    """
    with needing("pillow", "a picture as input"):
        from PIL import Image, UnidentifiedImageError
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is held to a limit here
            image = Image.open(path)
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise RequestError(f"{path} is {width}x{height}, at most {MOST_PIXELS} pixels are taken; make it smaller")
        image.load()
    except RequestError:
        raise  # which is a ValueError too
    except UnidentifiedImageError as error:
        raise IntegrityError(f"{path} is no picture that Pillow knows; give a PNG, JPEG or WebP file") from error
    except Image.DecompressionBombError as error:
        raise RequestError(f"{path} has more than {MOST_PIXELS} pixels; make it smaller first") from error
    except OSError as error:
        if error.errno is not None:
            raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
        raise IntegrityError(f"{path} cannot be decoded ({error}); copy it again") from error
    except (ValueError, SyntaxError, EOFError, IndexError, TypeError, ArithmeticError, RuntimeError) as error:
        # What Pillow's readers raise for files that contradict themselves.
        raise IntegrityError(f"{path} cannot be decoded ({error}); copy it again") from error
    return image
