/** The client of the Hamiltonian service. */

import createClient, { type Client, type Middleware } from "openapi-fetch";

import { BrokenStreamError, problemOf, ProblemError, type Problem } from "./errors.js";
import { eventsOf } from "./events.js";
import type { components, paths } from "./hamiltonian.schema.js";

type Schemas = components["schemas"];

export type Analysis = Schemas["AnalysisRecord"];
export type AnalysisSummary = Schemas["AnalysisSummary"];
type Body<Path extends "/v1/analyze" | "/v1/analyze/stream"> =
  paths[Path]["post"]["requestBody"]["content"]["application/json"];

export type AnalyzeRequest = Partial<Body<"/v1/analyze">> & Asked;
export type StreamRequest = Partial<Body<"/v1/analyze/stream">> & Asked;
/** A prompt or the messages of a chat, and just one of them. */
export type Asked =
  | { prompt: string; messages?: never }
  | { messages: Schemas["ChatMessage"][]; prompt?: never };

/** One token of a stream; `signals` is null for a last piece of text, `alarm` where no gate watches. */
export interface Token {
  kind: "token";
  text: string;
  token_id: number | null;
  alarm: boolean | null;
  signals: Record<string, number | string | null> | null;
}

/** The gate's alarm, once, at the token with this index. */
export interface Alarm {
  kind: "alarm";
  token: number;
}

/** The end of a stream: the analysis of the whole. */
export interface Finished {
  kind: "finished";
  analysis: Analysis;
}

export type StreamEvent = Token | Alarm | Finished;

export interface ClientOptions {
  /** Base URL of the service. */
  url: string;
  /** One of its keys; none for a service of this machine without keys. */
  apiKey?: string;
  /** In place of the global fetch. */
  fetch?: typeof fetch;
}

/** Asks a Hamiltonian service. `api` has every route, typed by the OpenAPI document. */
export class HamiltonianClient {
  readonly api: Client<paths>;
  readonly #url: string;
  readonly #headers: Record<string, string>;
  readonly #fetch: typeof fetch;

  constructor(options: ClientOptions) {
    this.#url = options.url.replace(/\/+$/, "");
    this.#fetch = options.fetch ?? fetch;
    this.#headers = options.apiKey === undefined ? {} : { Authorization: `Bearer ${options.apiKey}` };
    this.api = createClient<paths>({ baseUrl: this.#url, headers: this.#headers, fetch: this.#fetch });
    this.api.use(refusals);
  }

  /** Generates from a prompt, or the messages of a chat, and analyses the generation. */
  async analyze(request: AnalyzeRequest, signal?: AbortSignal): Promise<Analysis> {
    const { data } = await this.api.POST("/v1/analyze", { body: request as never, ...(signal && { signal }) });
    return data!;
  }

  /** Yields tokens as they come, the alarm if there is one, and at last the analysis of the whole. */
  async *stream(request: StreamRequest, signal?: AbortSignal): AsyncGenerator<StreamEvent> {
    const response = await this.#fetch(`${this.#url}/v1/analyze/stream`, {
      method: "POST",
      headers: { ...this.#headers, "Content-Type": "application/json", Accept: "text/event-stream" },
      body: JSON.stringify(request),
      ...(signal && { signal }),
    });
    if (!response.ok) throw await problemOf(response);
    for await (const event of eventsOf(response)) {
      const data: unknown = JSON.parse(event.data);
      if (event.event === "token") yield { kind: "token", ...(data as Omit<Token, "kind">) };
      else if (event.event === "alarm") yield { kind: "alarm", ...(data as Omit<Alarm, "kind">) };
      else if (event.event === "analysis") {
        yield { kind: "finished", analysis: data as Analysis };
        return;
      } else if (event.event === "error") {
        const problem = data as Problem;
        throw new ProblemError(problem.status, problem);
      }
    }
    throw new BrokenStreamError("the stream broke off before its end");
  }

  /** Yields recent analyses, the latest first; pages are asked for as they are needed. */
  async *analyses(limit = 50): AsyncGenerator<AnalysisSummary> {
    let cursor: string | null = null;
    do {
      const query: { limit: number; cursor?: string } = cursor === null ? { limit } : { limit, cursor };
      const { data } = await this.api.GET("/v1/analyses", { params: { query } });
      yield* data!.items;
      cursor = data!.next ?? null;
    } while (cursor !== null);
  }
}

/** Turns every answer that is none into an error. */
export const refusals: Middleware = {
  async onResponse({ response }) {
    if (!response.ok) throw await problemOf(response);
    return undefined;
  },
};
