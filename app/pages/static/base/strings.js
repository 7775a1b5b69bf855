/** The words that both pages share. Each page has its own besides. */

export const text = {
  product: "Image Gateway",
  playground: "Playground",
  administration: "Admin",
  apiDocumentation: "API",

  offline: "The gateway cannot be reached. Check the connection; the page goes on when it is back.",
  strangeAnswer: (status) => `The gateway, or something before it, answered ${status} without saying why.`,

  theme: "Theme",
  themes: { auto: "As the system", light: "Light", dark: "Dark" },

  key: "Key",
  keyTitle: "A key, please",
  keyHint: "The operator of the gateway gives it out.",
  keyRemember: "Remember it in this browser",
  keyRememberHint: "Otherwise it ends with this tab.",
  keyUse: "Open",
  keyChange: "Change the key",
  keyForget: "Forget the key",
  keyMissing: "Enter a key.",
  keyUnspeakable: "A key has letters, digits and signs of English alone. This one has others.",
  keyShow: "Show",
  keyHide: "Hide",

  close: "Close",
  cancel: "Cancel",
  copy: "Copy",
  copied: "Copied",
  copyFailed: "The browser does not let the page copy. Select the text and copy it.",
  retry: "Try again",
  loading: "Loading…",
  dismiss: "Dismiss",
};
