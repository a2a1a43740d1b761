"""A host that predicts without the key: the client encrypts, the host has the model alone.

    python examples/serve.py host runs/np-m4                 (or a file of 'segkey export')
    python examples/serve.py ask photo.jpg mask.png --key keys/segkey.key

The host is not given the key, so it cannot at once use the model on images of its own. It sees the
masks, and whoever keeps the encrypted images can compute the key from them in under a minute: this
rests on trust (examples/attacks.md). Put TLS and authentication in front before others can reach
it.
"""

import argparse
import io
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

import numpy as np
from PIL import Image, ImageOps

import segkey
from segkey.model import score_resizing

MOST_BYTES = 64 << 20  # of a request


def host(model, port: int = 8000) -> ThreadingHTTPServer:
    """A server on this machine: GET tells what the model needs, POST takes an encrypted image."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            about = {name: getattr(model.header, name) for name in ("method", "block_size")}
            self.reply(200, json.dumps(about | {"size": model.size}).encode())

        def do_POST(self):
            try:
                size = int(self.headers["Content-Length"])
                if not 0 < size <= MOST_BYTES:
                    raise ValueError("the request is too large")
                image = np.load(io.BytesIO(self.rfile.read(size)), allow_pickle=False)
                wanted = (model.header.channels, *model.size)
                if image.shape != wanted or image.dtype not in (np.uint8, np.uint16):
                    raise ValueError(f"an encrypted image {wanted} is needed")
                logits = model.logits(image[None])[0].astype(np.float16)
                self.reply(200, as_bytes(logits))
            except (ValueError, TypeError, EOFError) as error:
                self.reply(400, str(error).encode())

        def reply(self, status: int, body: bytes):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def ask(photo: str, key: segkey.Key, url: str = "http://127.0.0.1:8000") -> np.ndarray:
    """The mask of a photograph, uint8 (H, W); what leaves this machine is encrypted."""
    about = json.load(urlopen(url))
    height, width = about["size"]
    picture = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    cipher = segkey.ciphers.from_key(about["method"], key, about["block_size"])
    encrypted = cipher.encrypt(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    logits = np.load(io.BytesIO(urlopen(url, as_bytes(encrypted)).read()), allow_pickle=False)
    return score_resizing.classes_at(logits.astype(np.float32), (picture.height, picture.width))


def as_bytes(array: np.ndarray) -> bytes:
    """An array as a file of NumPy's."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["host", "ask"])
    parser.add_argument("files", nargs="+", help="host: the model; ask: a photograph and its mask")
    parser.add_argument("--key", default="keys/segkey.key")
    given = parser.parse_args()
    if given.role == "host":
        host(segkey.load(given.files[0])).serve_forever()
    else:
        mask = ask(given.files[0], segkey.Key.load(given.key))
        Image.fromarray(mask).save(given.files[1])
