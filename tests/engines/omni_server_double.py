"""A stand-in for the packages vllm and vllm_omni: `vllm serve … --omni` that answers over HTTP and draws noise.

Its one worker draws a batch at a time and records it as the plugin does there, under the ids that vLLM-Omni would give.
`python_path(folder)` writes the packages; they read how to behave from the environment variable BEHAVE.
"""

from pathlib import Path

MAIN = """
import base64, io, json, os, sys, threading, time, uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import numpy as np
from PIL import Image
from profiling.vllm_plugin.record_files import append_line

BEHAVE = os.environ.get("BEHAVE", "")
DRAWING, SERVED = threading.Lock(), [0]


def flag(name):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else ""


def line(request, began, took):
    phases = [["request", 0, began, took, None]]
    phases += [["denoise_step", n, began + n * took / 4e3, took / 4, None] for n in range(4)]
    skipped = 2 if "--cache-backend" in sys.argv and BEHAVE != "idle" else 0
    settings = {"pipeline": "QwenImagePipeline", "cache_backend": flag("--cache-backend") or "none"}
    evidence = {"rank": 0, "dit_forwards": 4, "denoise_steps": 4, "blocks_run": 8, "blocks_skipped": skipped,
        "block_sequence": 64, "dit_parameters": 100, "settings": settings, "counts": {}}
    return {"requests": [request], "dummy": False, "start_s": began, "phases": phases, "evidence": evidence}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the body is held back for 40 ms

    def log_message(self, *args):
        pass

    def answer(self, status, told):
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200, {})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["model"] != flag("--served-model-name") or asked["generator_device"] != "cpu":
            return self.answer(400, {"error": {"message": "not as vLLM-Omni takes it"}})
        came, named = time.perf_counter(), self.headers.get("X-Request-Id") if "--middleware" in sys.argv else None
        with DRAWING:
            began = time.perf_counter()
            SERVED[0] += 1
            if BEHAVE == "die" and SERVED[0] == 6:
                raise_out("RuntimeError: CUDA error: an illegal memory access")
            time.sleep(0.02)
            took = 1e3 * (time.perf_counter() - began)
            if "SWEEP_PLUGIN_DIR" in os.environ:
                request = f"{named or 'img_gen-' + uuid.uuid4().hex}-{uuid.uuid4().hex[:8]}"
                append_line(Path(os.environ["SWEEP_PLUGIN_DIR"]) / "dit-rank0-1.jsonl", line(request, began, took))
        width, height = map(int, asked["size"].split("x"))
        pixels = np.random.default_rng(asked["seed"]).integers(0, 255, (height, width, 3)).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        durations = {"queue_wait_ms": 1e3 * (began - came), "stage_0_gen_ms": took}
        metrics = {"stage_durations": durations if BEHAVE != "silent" else None, "peak_memory_mb": 1.0}
        self.answer(200, {"data": [{"b64_json": base64.b64encode(file.getvalue()).decode()}], "metrics": metrics})


def raise_out(text):
    print("Traceback (most recent call last):\\n" + text, file=sys.stderr, flush=True)
    os._exit(1)


def main():
    assert sys.argv[1] == "serve" and "--omni" in sys.argv, sys.argv
    print("ARGV", json.dumps(sys.argv), flush=True)
    if BEHAVE == "no_start":
        raise_out("ValueError: no such model")
    if "SWEEP_PLUGIN_DIR" in os.environ:
        for number in (1, 2):
            marker = Path(os.environ["SWEEP_PLUGIN_DIR"]) / f"installed-{number}.json"
            marker.write_text(json.dumps({"pid": number, "hooks": []}))
    ThreadingHTTPServer((flag("--host"), int(flag("--port"))), Handler).serve_forever()
"""

FILES = {
    "vllm/__init__.py": "",
    "vllm_omni/__init__.py": "",
    "vllm_omni/entrypoints/__init__.py": "",
    "vllm_omni/entrypoints/cli/__init__.py": "",
    "vllm_omni/entrypoints/cli/main.py": MAIN,
    "vllm_omni-0.26.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: vllm-omni\nVersion: 0.26.0\n",
}


def python_path(folder: Path) -> str:
    """The folder with the packages, written there."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)
