/** A question before something that cannot be undone. */

import { Button, Dialog } from "./components.js";
import { html } from "./html.js";
import { createStore, useStore } from "./store.js";
import { text } from "./strings.js";

const asked = createStore({ question: null });

/** @param {{title: string, detail?: string, action: string}} question @returns {Promise<boolean>} whether to do it */
export function ask(question) {
  return new Promise((answer) => asked.set({ question: { ...question, answer } }));
}

/** Once in each page. */
export function Questions() {
  const { question } = useStore(asked);
  if (!question) return null;
  const answer = (value) => {
    asked.set({ question: null });
    question.answer(value);
  };
  const actions = html`<${Button} onClick=${() => answer(false)}>${text.cancel}<//>
    <${Button} kind="danger" onClick=${() => answer(true)}>${question.action}<//>`;
  return html`<${Dialog} title=${question.title} onClose=${() => answer(false)} actions=${actions}>${question.detail}<//>`;
}
