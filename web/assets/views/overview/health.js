// How the cluster fares, in a sentence, with each doubt and where to see it.

import { html } from "../../html.js";
import { known as hasText, rich, t } from "../../i18n.js";
import { volumeLink } from "../../api.js";
import { useKnown } from "../../store.js";
import { look } from "../../ui/state.js";

const EVIDENCE = {
  missing_blocks: "#/blocks?only=lost", corrupt_replicas: "#/blocks?only=damaged", under_replicated_blocks: "#/repair",
  repair_held: "#/repair", few_volumes: "#/servers",
};

export function subjectLink({ kind, id }) {
  if (kind === "volume") return volumeLink(id);
  if (kind === "server") return `#/servers?at=${encodeURIComponent(id)}`;
  return kind === "block" ? `#/blocks?block=${encodeURIComponent(id)}` : "#/";
}

const reasonText = ({ code, count, text }) => (hasText(`health.${code}`) ? t(`health.${code}`, { n: count }) : text);

function Reason({ reason }) {
  const subjects = reason.subjects ?? [];
  const [tone, sign] = look(reason.level);
  const shown = subjects.slice(0, 5);
  const left = subjects.length - shown.length;
  return html`<li><span class="sign ${tone}" aria-hidden="true">${sign}</span> <a href=${EVIDENCE[reason.code] ?? "#/servers"}>${reasonText(reason)}</a>
    ${shown.length > 0 && html`: ${shown.map((subject, at) => html`${at > 0 && ", "}<a class="any" href=${subjectLink(subject)}>${subject.name || subject.id}</a>`)}`}
    ${left > 0 && ` ${t("and.more", { n: left })}`}</li>`;
}

export function Health() {
  const health = useKnown((known) => known.state?.health);
  const up = useKnown((known) => known.up);
  const level = up && health ? health.level : "unknown";
  const [tone, sign] = look(level);
  const [worst, ...others] = health?.reasons ?? [];
  const sentence = level === "unknown" ? t("health.unknown")
    : worst ? rich(others.length ? "health.some" : "health.one", { level: t(`level.${level}`), worst: reasonText(worst), n: others.length }) : t("health.ok");
  return html`<section class="health ${tone}" aria-label=${t("health")}>
    <span class="sign big ${tone}" aria-hidden="true">${sign}</span>
    <div class="why"><h1 data-test="health" data-level=${level} aria-live="polite">${sentence}</h1>
      ${health?.reasons.length > 0 && html`<ul>${health.reasons.map((reason) => html`<${Reason} key=${reason.code} reason=${reason} />`)}</ul>`}</div>
  </section>`;
}
