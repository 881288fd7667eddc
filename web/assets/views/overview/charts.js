// The charts of the overview.

import { html, useMemo, useState } from "../../html.js";
import { t } from "../../i18n.js";
import { bytes, latency, perSecond, rate } from "../../format.js";
import { Chart } from "../../ui/chart.js";
import { Choice, Loading } from "../../ui/parts.js";
import { useHistory } from "./history.js";

const CHARTS = [
  { name: "throughput", columns: ["write_bytes_per_s", "read_bytes_per_s"], show: rate, inBytes: true },
  { name: "requests", columns: ["requests_per_s"], show: perSecond },
  { name: "latency", columns: ["write_p99_us", "flush_p99_us", "read_p99_us"], show: latency },
  { name: "space", columns: ["used_bytes", "capacity_bytes"], show: bytes, inBytes: true },
  { name: "queue", columns: ["waiting_bytes"], show: bytes, inBytes: true },
];

export function Charts({ events }) {
  const [window, choose] = useState("5m");
  const history = useHistory(window);
  const columns = useMemo(() => history && Object.fromEntries(history.columns.map((name, at) =>
    [name, history.rows.map((row) => (at ? row[at] : row[at] / 1000))])), [history]);
  return html`<section>
    <div class="head"><h2>${t("over.charts")}</h2>
      <${Choice} label=${t("over.window")} value=${window} onChange=${choose} test="window" options=${["5m", "1h", "24h"].map((one) => [one, t(`over.${one}`)])} /></div>
    ${columns
      ? html`<div class="grid charts">${CHARTS.map(({ name, columns: wanted, show, inBytes }) => html`<${Chart} key=${name} test=${`chart-${name}`}
          title=${t(`chart.${name}`)} show=${show} inBytes=${inBytes} events=${events}
          series=${wanted.map((one) => ({ label: t(`column.${one}`) }))} data=${[columns.at_unix_ms, ...wanted.map((one) => columns[one])]} />`)}</div>`
      : html`<${Loading} />`}
  </section>`;
}
