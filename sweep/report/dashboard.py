"""dashboard.html: interactive charts of the loads of a sweep in one file that needs no network.

plotly.js comes with the Python package plotly (the extra `dashboard`) and is put into the file, about 5 MB. The page's
policy lets only the file's own scripts run, and nothing be fetched.
"""

import base64
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from profiling.printing import clean
from sweep.config.run import INSTALLED
from sweep.plan.preflight import how_to_install
from sweep.refusals import ConfigError
from sweep.report import load_text
from sweep.report.charts import charts
from sweep.report.queue_charts import queue_charts
from sweep.report.stored import Stored
from sweep.report.templates import template

SCRIPT = """
"use strict";
const charts = JSON.parse(document.getElementById("charts").textContent);
const options = {responsive: true, displayModeBar: false};
charts.forEach((chart, place) => {
  const area = document.getElementById(`chart-${place}`);
  const choice = document.getElementById(`choice-${place}`);
  const draw = number => Plotly.react(area, chart.figures[number].data, chart.figures[number].layout, options);
  if (choice) choice.addEventListener("change", () => draw(choice.selectedIndex));
  draw(0);
});
"""


def write(stored: Stored) -> Path:
    """Write dashboard.html of the sweep. Raises ConfigError when there is no load or no plotly, and OSError."""
    if not stored.loads:
        raise ConfigError(f"{stored.folder.path}: {load_text.NOTHING}")
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ConfigError(f"dashboard.html needs plotly; run {how_to_install('dashboard', INSTALLED)}") from None
    return stored.folder.save_dashboard(page(stored, get_plotlyjs()))


def page(stored: Stored, plotly_js: str) -> str:
    """The page as text."""
    from markupsafe import Markup

    shown = [*charts(stored), *queue_charts(stored.summary.queues)]
    models = sorted({str(cell.config["model"]["name"]) for cell in stored.plan.cells})
    library = plotly_js.replace("</script", "<\\/script")
    return template("sweep.report", "dashboard.html.j2").render(
        title=clean(f"Loads of {', '.join(models)}"),
        command=clean(str(stored.manifest.get("command", ""))),
        date=clean(str(stored.manifest.get("start", ""))),
        note=stored.note,
        lines=[(clean(name), clean(said)) for name, said in stored.load_lines],
        charts=shown,
        data=Markup(_json([asdict(chart) for chart in shown])),
        library=Markup(library),
        script=Markup(SCRIPT),
        policy=" ".join(f"'sha256-{_hash(code)}'" for code in (library, SCRIPT)),
    )


def _json(values: Any) -> str:
    """JSON that cannot end the script element around it."""
    safe = json.dumps(values, allow_nan=False)
    for character in "<>&":
        safe = safe.replace(character, f"\\u{ord(character):04x}")
    return safe


def _hash(code: str) -> str:
    return base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
