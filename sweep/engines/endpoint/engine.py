"""The engine that attaches to a server: checks that it responds, reads its model's name, and sends the warm-up."""

import base64
import binascii
import hashlib
import io
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sweep.engines.endpoint.bodies import body_for, path_of
from sweep.engines.endpoint.server import asked, model_of
from sweep.engines.images import fault_of
from sweep.engines.protocol import EngineSpec, Output, Request


class EndpointEngine:
    """A server at `spec.url`."""

    alive = True  # after any reply, it can take another request

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.model = spec.served_model

    def load(self) -> Mapping[str, float] | None:
        """Loads nothing. Raises RuntimeError if no server responds, or none has this model."""
        self.model = model_of(self.spec)
        return None

    def generate(self, requests: Sequence[Request], folder: Path | None) -> Output:
        """Send all requests at once, as a batch, which warms the server up. No picture is kept."""
        began = time.perf_counter()
        with ThreadPoolExecutor(len(requests)) as pool:
            pictures = list(pool.map(self._picture, requests))
        return Output(
            request_ids=tuple(request.request_id for request in requests),
            start_s=began,
            latency_s=time.perf_counter() - began,
            image_paths=tuple("" for _ in requests),
            image_hashes=tuple(digest for digest, _ in pictures),
            output_tokens=0,
            prompt_tokens=tuple(0 for _ in requests),
            phases=(),
            evidence=(),
            image_faults=tuple(fault for _, fault in pictures),
            epoch_s=0.0,
        )

    def _picture(self, request: Request) -> tuple[str, str]:
        """Hash of the pixels that the server returns, and what is wrong with them."""
        from PIL import Image

        source = Path(request.input_image).read_bytes() if request.input_image else None
        reply = asked(self.spec, path_of(request), body_for(self.spec, request, self.model), picture=source)
        try:
            data = base64.b64decode(reply["data"][0]["b64_json"], validate=True)
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                return hashlib.sha256(image.tobytes()).hexdigest(), fault_of(image, request.size)
        except (LookupError, TypeError, ValueError, OSError, binascii.Error) as error:
            raise RuntimeError(f"the server's reply holds no picture ({type(error).__name__})") from error

    def close(self) -> None:
        """The server keeps running."""
