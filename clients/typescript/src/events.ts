/** Server-sent events of an answer to any request; the browser's own `EventSource` can only send GET. */

import { EventSourceParserStream } from "eventsource-parser/stream";

/** One event as it came. */
export interface ServerEvent {
  event: string;
  data: string;
  id: string;
}

// What one event may take; a stream without an end of line must not fill the memory.
const LARGEST = 64_000_000;

/** Yields the events of a response; leaving early cancels it, which ends what makes them. */
export async function* eventsOf(response: Response): AsyncGenerator<ServerEvent> {
  if (response.body === null) return;
  const text = response.body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>);
  const reader = text.pipeThrough(new EventSourceParserStream({ onError: "terminate", maxBufferSize: LARGEST })).getReader();
  let id = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      id = value.id ?? id;
      yield { event: value.event ?? "message", data: value.data, id };
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
