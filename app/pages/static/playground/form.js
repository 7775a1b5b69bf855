/** The form: what to draw, with which models, and what it will cost. It is made from what the models can do. */

import { Button, Field, Segmented, SelectField, TextField } from "../base/components.js";
import { money, seconds } from "../base/format.js";
import { html, useCallback, useState } from "../base/html.js";
import { Icon } from "../base/icons.js";
import { useStore } from "../base/store.js";
import { drawSheet } from "./drawing.js";
import { costOf, useEstimate } from "./estimate.js";
import { addInputs, Inputs, useDropAndPaste } from "./inputs.js";
import { nextSeed, randomSeed, requestFor, sizeFor } from "./request.js";
import { app, canDo, change, chosenModels, faults, form, takes } from "./session.js";
import { parseSize, presets, writeSize } from "./sizes.js";
import { words } from "./strings.js";

const MOST_MODELS = 4;
// The API's names of fields → the form's.
const FIELDS = {
  width: "size", height: "size", negative_prompt: "negative", output_format: "format", "image[]": "image", images: "image",
  guidance_scale: "guidance", num_steps: "steps", image_url: "image", max_cost: "form",
};

/** Put an error beside the field that it names. */
export function tellFault(error) {
  const name = error.param ? FIELDS[error.param] ?? error.param : "form";
  const known = ["prompt", "model", "size", "n", "seed", "negative", "quality", "format", "background", "steps", "guidance", "image", "mask"];
  faults.set({ byField: { [known.includes(name) ? name : "form"]: error.message } });
}

/** Draw what the form says. */
export async function draw() {
  const state = form.get();
  const models = chosenModels(state, app.get().models ?? []);
  if (!models.length) return;
  const missing =
    state.operation !== "variations" && !state.prompt.trim() ? ["prompt", words.promptMissing]
    : state.operation !== "generations" && !state.inputs.length ? ["image", words.pictureMissing]
    : state.operation === "edits" && models.some((model) => model.capabilities.mask_required) && !state.inputs[0].mask ? ["mask", words.maskNeeded]
    : null;
  if (missing) {
    faults.set({ byField: { [missing[0]]: missing[1] } });
    if (missing[0] === "prompt") document.getElementById("prompt")?.focus();
    return;
  }
  faults.set({ byField: {} });
  const seed = nextSeed(state);
  if (models.some((model) => takes(model, "seed"))) form.set({ seed: String(seed) });
  const refusal = await drawSheet(models.map((model) => requestFor(model, seed, state)));
  if (refusal?.param) tellFault(refusal);
}

export function Form() {
  const { models } = useStore(app);
  const state = useStore(form);
  const { byField } = useStore(faults);
  const chosen = chosenModels(state, models);
  const { estimates, error: refusal } = useEstimate(state, models);
  const fault = (name) => byField[name] ?? (refusal && (FIELDS[refusal.param] ?? refusal.param) === name ? refusal.message : undefined);
  const general = byField.form ?? (refusal && !refusal.param ? refusal.message : null);
  const any = (test) => chosen.some(test);
  const most = Math.max(1, Math.min(...chosen.map((model) => (state.operation === "variations" ? 1 : model.capabilities.max_images))) || 1);
  const operations = Object.entries(words.operations).map(([value, label]) => ({ value, label, disabled: !models.some((model) => canDo(model, value)) }));

  const onTaken = useCallback((found) => {
    if (form.get().operation === "generations") change({ operation: "edits" });
    const able = chosenModels(form.get(), app.get().models);
    addInputs(found, Math.max(1, able[0]?.capabilities.max_images ?? 1));
  }, []);
  const isOver = useDropAndPaste(most, onTaken);

  function onSubmit(event) {
    event.preventDefault();
    draw();
  }
  function onKeyDown(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) onSubmit(event);
  }

  return html`<form class=${`panel ${isOver ? "over" : ""}`} onSubmit=${onSubmit} onKeyDown=${onKeyDown} aria-label=${words.title} novalidate>
    <div class="panel-body stack">
      <${Segmented} label=${words.operation} value=${state.operation} options=${operations} onInput=${(operation) => change({ operation })} />
      ${state.operation !== "generations" && html`<${Inputs} inputs=${state.inputs} most=${most} error=${fault("image")} maskError=${fault("mask")}
        takesMask=${state.operation === "edits" && any((model) => model.capabilities.mask)} needsMask=${any((model) => model.capabilities.mask_required)} />`}
      ${state.operation !== "variations" && html`<${Field} label=${words.prompt} error=${fault("prompt")} aside=${html`<span class="hint keys">${words.promptKeys}</span>`}>
        ${(bound) => html`<textarea ...${bound} id="prompt" rows="4" placeholder=${words.promptPlaceholder} value=${state.prompt}
          onInput=${(event) => change({ prompt: event.target.value })}></textarea>`}
      <//>`}
      <${Models} models=${models} chosen=${chosen} operation=${state.operation} error=${fault("model")} />
      <${Size} state=${state} chosen=${chosen} error=${fault("size")} />
      <div class="pair">
        <${Count} n=${state.n} error=${fault("n")} />
        ${any((model) => takes(model, "seed")) && html`<${Seed} state=${state} chosen=${chosen} error=${fault("seed")} />`}
      </div>
      <${More} state=${state} chosen=${chosen} fault=${fault} />
    </div>
    <div class="panel-foot stack tight">
      ${general && html`<p class="error" role="alert">${general}</p>`}
      <${DrawButton} state=${state} chosen=${chosen} estimates=${estimates} />
    </div>
  </form>`;
}

function Models({ models, chosen, operation, error }) {
  const names = chosen.map((model) => model.id);
  const options = (own) => {
    const able = models.filter((model) => canDo(model, operation) && (model.id === own || !names.includes(model.id)));
    const unable = models.filter((model) => !canDo(model, operation));
    return [
      ...able.map((model) => ({ value: model.id, label: model.id })),
      ...unable.map((model) => ({ value: model.id, label: `${model.id} – ${words.cannot[operation]}`, disabled: true })),
    ];
  };
  const set = (index, name) => change({ models: name ? names.map((each, at) => (at === index ? name : each)) : names.filter((_, at) => at !== index), model: null });
  const free = models.find((model) => canDo(model, operation) && !names.includes(model.id));
  return html`<div class="stack tight">
    ${chosen.map((model, index) => html`<div class="row tight end" key=${index}>
      <${SelectField} class="grow" label=${index ? words.modelOf(index + 1) : words.model} value=${model.id} options=${options(model.id)}
        error=${index ? null : error} onInput=${(name) => set(index, name)} aside=${html`<${Abilities} model=${model} />`} />
      ${names.length > 1 && html`<${Button} kind="quiet" icon="close" label=${words.removeModel(model.id)} onClick=${() => set(index, null)} />`}
    </div>`)}
    ${free && names.length < MOST_MODELS && html`<${Button} kind="quiet" class="small start" icon="add" onClick=${() => change({ models: [...names, free.id] })}>${words.addModel}<//>`}
  </div>`;
}

function Abilities({ model }) {
  const can = model.capabilities;
  const told = [
    can.price_per_image != null && money(can.price_per_image),
    can.typical_seconds && words.typical(seconds(can.typical_seconds)),
  ].filter(Boolean);
  return html`<span class="hint numbers">${told.join(" · ")}</span>`;
}

function Size({ state, chosen, error }) {
  const able = chosen.filter((model) => model.capabilities.size_rules?.length);
  if (!able.length) return null;
  const rules = able[0].capabilities.size_rules;
  const options = [
    { value: "auto", label: words.sizeOwn, title: words.sizeOwnHint },
    ...presets(rules).map((preset) => ({ value: preset.shape, label: html`<span class="shape" style=${shapeStyle(preset)}></span>${preset.shape}`, title: writeSize(preset) })),
    { value: "custom", label: words.sizeCustom },
  ];
  const value = parseSize(state.shape) ? "custom" : options.some((each) => each.value === state.shape) ? state.shape : "auto";
  const drawn = able.map((model) => [model, sizeFor(state, model)]).filter(([, size]) => size);
  const told = [...new Set(drawn.map(([, size]) => writeSize(size).replace("x", " × ")))].join(", ");
  const others = chosen.filter((model) => !able.includes(model)).map((model) => model.id);
  return html`<div class=${`field sizes ${error ? "bad" : ""}`}>
    <${Segmented} label=${words.size} value=${value} options=${options} isLabelShown
      onInput=${(shape) => change({ shape, size: null })} />
    ${value === "custom" && html`<div class="pair">
      <${TextField} label=${words.width} inputmode="numeric" value=${state.width} onInput=${(width) => change({ width, size: null })} />
      <${TextField} label=${words.height} inputmode="numeric" value=${state.height} onInput=${(height) => change({ height, size: null })} />
    </div>`}
    ${value === "auto" && html`<p class="hint">${words.sizeOwnHint}</p>`}
    ${told && html`<p class="hint numbers">${value === "custom" && drawn.some(([, size]) => size.isOther) ? words.sizeSnapped(told) : `${told} px`}</p>`}
    ${others.length > 0 && html`<p class="hint">${words.onlyFor(others.join(", "))}</p>`}
    ${error && html`<p class="error" role="alert">${error}</p>`}
  </div>`;
}

/** An outline of the shape, 14 pixels long. */
function shapeStyle({ width, height }) {
  const scale = 14 / Math.max(width, height);
  return { width: `${Math.max(5, Math.round(width * scale))}px`, height: `${Math.max(5, Math.round(height * scale))}px` };
}

const Count = ({ n, error }) => html`<${Field} label=${words.count} error=${error}>
  ${(bound) => html`<div class="stepper">
    <${Button} icon="minus" label=${`${words.count} −`} disabled=${n <= 1} onClick=${() => change({ n: n - 1 })} />
    <input ...${bound} type="number" min="1" max="10" value=${n} onInput=${(event) => change({ n: Math.min(10, Math.max(1, Math.round(Number(event.target.value)) || 1)) })} />
    <${Button} icon="add" label=${`${words.count} +`} disabled=${n >= 10} onClick=${() => change({ n: n + 1 })} />
  </div>`}
<//>`;

function Seed({ state, chosen, error }) {
  const not = chosen.filter((model) => !takes(model, "seed")).map((model) => model.id);
  return html`<${Field} label=${words.seed} error=${error} hint=${not.length ? words.onlyFor(not.join(", ")) : null}>
    ${(bound) => html`<div class="row tight">
      <input ...${bound} type="text" inputmode="numeric" class=${state.isSeedLocked ? "" : "loose"} placeholder=${words.seedRandom} value=${state.seed}
        onInput=${(event) => change({ seed: event.target.value.replace(/\D/g, ""), isSeedLocked: event.target.value !== "" })} />
      <${Button} icon=${state.isSeedLocked ? "lock" : "unlock"} label=${state.isSeedLocked ? words.seedUnlock : words.seedLock} aria-pressed=${String(state.isSeedLocked)}
        onClick=${() => change({ isSeedLocked: !state.isSeedLocked, seed: state.seed || String(randomSeed()) })} />
      <${Button} icon="dice" label=${words.seedDice} onClick=${() => change({ seed: String(randomSeed()) })} />
    </div>`}
  <//>`;
}

/** The settings that not every model takes; those that none of the chosen takes are named instead. */
function More({ state, chosen, fault }) {
  const choice = (values) => [{ value: "", label: words.modelDecides }, ...values.map((value) => ({ value, label: value }))];
  const formats = chosen[0]?.capabilities.output_formats ?? [];
  const select = (name, values) => ({ node: html`<${SelectField} key=${name} label=${words[name]} value=${state[name]} options=${choice(values)} error=${fault(name)} onInput=${(value) => change({ [name]: value })} />` });
  const text = (name, more) => ({ node: html`<${TextField} key=${name} label=${words[name]} value=${state[name]} error=${fault(name)} onInput=${(value) => change({ [name]: value })} ...${more} />` });
  const settings = [
    ["negative_prompt", words.negative, text("negative", { class: "wide" })],
    ["quality", words.quality, select("quality", ["low", "medium", "high", "standard", "hd"])],
    ["background", words.background, select("background", ["transparent", "opaque"])],
    ["steps", words.steps, text("steps", { inputmode: "numeric", placeholder: words.modelDecides })],
    ["guidance", words.guidance, text("guidance", { inputmode: "decimal", placeholder: words.modelDecides })],
  ];
  const taken = settings.filter(([name]) => chosen.some((model) => takes(model, name)));
  const not = [["seed", words.seed], ...settings].filter(([name]) => !chosen.some((model) => takes(model, name))).map(([, label]) => label.toLowerCase());
  const isSet = ["negative", "quality", "format", "background", "steps", "guidance"].some((name) => state[name] !== "" || fault(name));
  const [isOpen, setOpen] = useState(isSet);
  return html`<details class="more" open=${isOpen || isSet} onToggle=${(event) => setOpen(event.currentTarget.open)}>
    <summary>${words.more}</summary>
    <div class="more-grid">
      ${select("format", formats).node}
      ${taken.map(([, , { node }]) => node)}
    </div>
    ${not.length > 0 && html`<p class="hint">${words.notFor(not.join(", "))}</p>`}
  </details>`;
}

function DrawButton({ state, chosen, estimates }) {
  const count = state.n * chosen.length;
  const cost = costOf(estimates, chosen, state.n);
  const price = cost
    ? cost.most === null ? words.priceFrom(money(cost.least, cost.currency))
    : cost.least === cost.most ? money(cost.most, cost.currency)
    : words.priceRange(money(cost.least, cost.currency), money(cost.most, cost.currency))
    : words.priceUnknown;
  const budget = estimates?.map((each) => each.budget).find(Boolean);
  const waiting = estimates?.flatMap((each) => each.deployments.filter((one) => one.eligible).slice(0, 1)).reduce((sum, one) => sum + (one.waiting ?? 0), 0);
  const details = [
    budget && `${words.budgetOwner[budget.scope]}: ${words.budgetLeft(money(Math.max(0, budget.left), cost?.currency), money(budget.amount, cost?.currency))}`,
    waiting > 0 && words.waitingHere(waiting),
  ].filter(Boolean);
  return html`<button type="submit" class="button primary draw" disabled=${!chosen.length}>
      <${Icon} name="brush" /><span>${count > 1 ? words.drawMany(count) : words.draw}</span><span class="price numbers">${price}</span>
    </button>
    ${budget && html`<progress class="budget" max=${budget.amount} value=${budget.used + budget.held} aria-hidden="true"></progress>`}
    ${details.length > 0 && html`<p class="hint numbers">${details.join(" · ")}</p>`}`;
}
