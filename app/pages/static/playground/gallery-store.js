/** The pictures that were drawn, newest first, in this browser alone; all tabs see the same. */

import { note } from "../base/live.js";
import { createStore } from "../base/store.js";
import { files, pictures, runs } from "./database.js";
import { form } from "./session.js";
import { words } from "./strings.js";

/** @type {{all: object[] | null}} null: not read yet */
export const gallery = createStore({ all: null });

const channel = "BroadcastChannel" in window ? new BroadcastChannel("image-gateway.playground") : null;
if (channel) channel.onmessage = () => loadGallery();

export async function loadGallery() {
  const all = await pictures.all();
  gallery.set({ all: all.sort((one, other) => other.createdAt - one.createdAt) });
}

export async function addPicture(picture) {
  try {
    await pictures.put(picture);
  } catch {
    note(words.galleryFull, { isError: true }); // it is shown until the tab ends
  }
  gallery.set(({ all }) => ({ all: [picture, ...(all ?? []).filter((each) => each.id !== picture.id)] }));
  channel?.postMessage("changed");
}

export async function setFavourite(picture, favourite) {
  const changed = { ...picture, favourite };
  gallery.set(({ all }) => ({ all: all.map((each) => (each.id === picture.id ? changed : each)) }));
  await pictures.put(changed);
  channel?.postMessage("changed");
}

export async function removePictures(ids) {
  const gone = new Set(ids);
  gallery.set(({ all }) => ({ all: all.filter((each) => !gone.has(each.id)) }));
  for (const id of gone) await pictures.delete(id);
  channel?.postMessage("changed");
}

/** Delete the files that no picture, no drawing under way and not the form needs any more. */
export async function cleanFiles() {
  const used = new Set(form.get().inputs.map(({ id }) => id));
  for (const { request } of [...(gallery.get().all ?? []), ...(await runs.all())]) {
    for (const { id } of request.inputs) used.add(id);
  }
  const aDayAgo = Date.now() - 86_400_000; // another tab may have it in its form
  for (const file of await files.all()) {
    if (!used.has(file.id.replace(/^mask:/, "")) && (file.createdAt ?? 0) < aDayAgo) await files.delete(file.id);
  }
}
