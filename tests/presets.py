"""For presets.sh: serves the expositions of tests/presets, or writes a history.

    presets.py serve PORT                 /NAME is NAME.prom, its counters growing with time
    presets.py history INSTANCE > FILE    OpenMetrics: three days of two hosts that fail, and of alerts about INSTANCE
"""

import http.server
import pathlib
import re
import sys
import time

MINUTE, DAY = 60, 86_400
START = time.time()


def grown(text):
    """The exposition as it is now: what counts has grown by its value each second."""
    counting, lines = False, []
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            counting = line.split()[3] != "gauge"
        elif counting and not line.startswith("#"):
            series, value = line.rsplit(" ", 1)
            line = f"{series} {float(value) * (1 + time.time() - START)}"
        lines.append(line)
    return "\n".join(lines) + "\n"


class Exposition(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        file = pathlib.Path(__file__).parent / "presets" / (re.sub(r"\W*/", "", self.path) + ".prom")
        body = grown(file.read_text()).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def history(instance):
    """Old-1 is down for three minutes each day and each night, old-2 once, with a break that is no end."""
    end = int(time.time()) // MINUTE * MINUTE - 30 * MINUTE
    start = end - 3 * DAY
    down = {"old-1:9100": [(k * DAY // 2 + 3600, 3) for k in range(6)], "old-2:9100": [(DAY, 2), (DAY + 4 * MINUTE, 2)]}
    times = range(start, end, MINUTE)
    print("# TYPE up gauge")
    for host, spells in down.items():
        for t in times:
            is_down = any(start + at <= t < start + at + minutes * MINUTE for at, minutes in spells)
            print(f'up{{job="node",instance="{host}"}} {int(not is_down)} {t}')
    print("# TYPE ALERTS gauge")
    for t in times[100:110]:
        print(f'ALERTS{{alertname="DiskFull",alertstate="firing",severity="critical",instance="{instance}"}} 1 {t}')
    print("# TYPE node_cpu_seconds gauge")
    for t in times:
        print(f'node_cpu_seconds_total{{job="node",instance="old-1:9100",cpu="0",mode="idle"}} {t - start} {t}')
    print("# EOF")


if sys.argv[1] == "serve":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Exposition).serve_forever()
else:
    history(sys.argv[2])
