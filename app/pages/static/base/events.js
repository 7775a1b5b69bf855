/** Server-sent events, read from a fetch: EventSource can neither post nor carry a key. */

/**
 * @param {ReadableStream<Uint8Array>} body
 * @yields {{event: string, data: string}}
 */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let pieces = []; // of one line that is not whole yet: a picture's line comes in hundreds of pieces
  let event = "message";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      if (!value.includes("\n")) {
        pieces.push(value);
        continue;
      }
      rest = pieces.join("") + value;
      pieces = [];
      const lines = rest.split("\n");
      pieces.push(lines.pop());
      for (const raw of lines) {
        const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
        if (line === "") {
          if (data.length) yield { event, data: data.join("\n") };
          event = "message";
          data = [];
        } else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
        else if (line.startsWith("event:")) event = line.slice(6).trim();
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
