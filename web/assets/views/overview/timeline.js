// What happened: the newest first.

import { html, useState } from "../../html.js";
import { known as hasText, t } from "../../i18n.js";
import { get } from "../../api.js";
import { clock, when } from "../../format.js";
import { Empty, Sign, Trouble } from "../../ui/parts.js";
import { subjectLink } from "./health.js";

const FIRST = 12;
const TOLD = 200; // as many as the stream begins with

const today = (at) => new Date(at).toDateString() === new Date().toDateString();

function Line({ event }) {
  const { kind, subject, count } = event;
  const key = `event.${kind}`;
  return html`<li data-test="event" data-kind=${kind}>
    <time datetime=${new Date(event.at_unix_ms).toISOString()}>${today(event.at_unix_ms) ? clock(event.at_unix_ms) : when(event.at_unix_ms)}</time>
    <${Sign} state=${event.level} /><span class="unseen">${t(`level.${event.level}`)}: </span>
    <span>${hasText(key) ? t(key, { n: count }) : kind}${subject?.id && subject.kind !== "cluster" && html`: <a class="any" href=${subjectLink(subject)}>${subject.name || subject.id}</a>`}</span>
  </li>`;
}

export function Timeline({ events }) {
  const [older, setOlder] = useState({ events: [], more: events.length >= TOLD });
  const [shown, setShown] = useState(FIRST);
  const [error, setError] = useState(null);
  const all = [...older.events, ...events];

  async function more() {
    try {
      if (shown >= all.length && older.more) {
        const answer = await get("timeline", { before: all[0]?.id, limit: 50 });
        setOlder({ events: [...answer.events, ...older.events], more: answer.more });
      }
      setShown(shown + 50);
      setError(null);
    } catch (failure) {
      setError(failure);
    }
  }

  return html`<section><h2>${t("over.timeline")}</h2>
    ${all.length === 0 ? html`<${Empty} title=${t("over.no_events")} />`
      : html`<ol class="timeline card" data-test="timeline">${all.slice(-shown).reverse().map((event) => html`<${Line} key=${event.id} event=${event} />`)}</ol>`}
    <${Trouble} error=${error} />
    ${(shown < all.length || older.more) && all.length > 0 && html`<p class="more"><button onClick=${more}>${t("more")}</button></p>`}
  </section>`;
}
