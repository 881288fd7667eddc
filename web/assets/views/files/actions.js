// What can be done with files and folders, each asked for first.

import { html } from "../../html.js";
import { t } from "../../i18n.js";
import * as api from "../../api.js";
import { bytes, quoted } from "../../format.js";
import { question } from "../../ui/dialog.js";
import { toast } from "../../ui/toast.js";

export function newFolder(folder, done) {
  question({
    title: t("files.new_folder"), fields: [{ name: "name", label: t("files.name_in", { folder }), value: "" }], yes: t("files.make"),
    command: ({ name }) => `blockyard mkdir ${quoted(api.join(folder, name))}`,
    run: ({ name }) => api.post(`folders/${api.encodePath(api.join(folder, name))}`), done,
  });
}

export function rename({ path }, done) {
  const target = (to) => (to.startsWith("/") ? to : api.join(api.parent(path), to));
  question({
    title: t("files.rename"), text: path, fields: [{ name: "to", label: t("files.new_path"), value: path }], yes: t("files.rename"),
    command: ({ to }) => `blockyard mv ${quoted(path)} ${quoted(target(to))}`,
    run: ({ to }) => api.post("rename", { from: path, to: target(to), overwrite: false }),
    done: (_, { to }) => done(target(to)),
  });
}

export function setReplication({ path, directory, replication }, done) {
  question({
    title: t("files.copies"), text: path, yes: t("files.set"),
    fields: [{ name: "copies", label: t("files.copies_wanted"), type: "number", min: 1, max: 8, value: String(replication || 3) }],
    advice: ({ copies }) => Number(copies) === 1 && t("files.one_copy"),
    command: ({ copies }) => `blockyard setrep ${copies} ${directory ? "-r " : ""}${quoted(path)}`,
    run: ({ copies }) => api.post("replication", { path, recursive: directory, replication: Number(copies) }), done,
  });
}

// Removes one after the other; what is removed can be taken back.
export function removeEntries(entries, done) {
  const one = entries.length === 1 ? entries[0] : null;
  async function undo(gone) {
    try {
      for (const entry of gone) await api.restore(entry);
      toast(t("files.undone"));
    } catch (error) {
      toast(`✕ ${error.message}`);
    }
    done(true);
  }
  question({
    title: one ? t("files.delete_one", { name: one.name }) : t("files.delete_many", { n: entries.length }), danger: true, yes: t("files.delete"),
    text: html`${one ? t(one.directory ? "files.with_all" : "files.of_size", { path: one.path, size: bytes(one.size ?? 0) }) : t("files.these", { n: entries.length })} ${t("files.to_trash")}`,
    command: () => `blockyard rm ${entries.some(({ directory }) => directory) ? "-r " : ""}${entries.slice(0, 5).map(({ path }) => quoted(path)).join(" ")}${entries.length > 5 ? " …" : ""}`,
    run: async () => {
      const gone = [];
      let files = 0;
      try {
        for (const { path, directory } of entries) {
          const answer = await api.removePath(path, directory);
          files += answer.files ?? 1;
          if (answer.entry) gone.push(answer.entry);
        }
      } finally {
        if (gone.length) toast(t("files.deleted", { n: files }), { label: t("undo"), test: "undo", run: () => undo(gone) });
      }
    },
    done: () => done(false),
  });
}
