/** The client of the Coordination service. */

import createClient, { type Client } from "openapi-fetch";

import type { components, paths } from "./coordination.schema.js";
import { BrokenStreamError, problemOf, ProblemError, type Problem } from "./errors.js";
import { eventsOf } from "./events.js";
import { refusals, type ClientOptions } from "./hamiltonian.js";

type Schemas = components["schemas"];

export type Measurement = Schemas["Measurement"];
export type MeasurementRequest = Schemas["MeasurementRequest"];
export type DriftSeries = Schemas["Drift"];

/** One event of a measurement: `state` or `progress`, its data, and the id to go on after. */
export interface MeasurementEvent {
  event: string;
  data: Record<string, unknown>;
  id: string;
}

const ENDS = new Set(["succeeded", "failed", "cancelled"]);
const FRUITLESS = 10;
const PAUSE_MS = 500;

/** Asks a Coordination service. `api` has every route, typed by the OpenAPI document. */
export class CoordinationClient {
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

  /** Begins a measurement; the same key makes one measurement, however often it is sent. */
  async measure(request: MeasurementRequest, idempotencyKey?: string): Promise<Measurement> {
    const header = idempotencyKey === undefined ? {} : { "idempotency-key": idempotencyKey };
    const { data } = await this.api.POST("/v1/measurements", { body: request, params: { header } });
    return data!;
  }

  /** Returns where a measurement is. */
  async measurement(id: string): Promise<Measurement> {
    const path = { measurement_id: id };
    const { data } = await this.api.GET("/v1/measurements/{measurement_id}", { params: { path } });
    return data!;
  }

  /** Deletes a measurement that has ended, with its texts; what it cost stays in the books. */
  async delete(id: string): Promise<void> {
    const path = { measurement_id: id };
    await this.api.DELETE("/v1/measurements/{measurement_id}", { params: { path } });
  }

  /** Takes off the alarm of a series that was seen; where another one stands by now, that is left (409). */
  async acknowledge(series: DriftSeries): Promise<DriftSeries> {
    const body = series.alarm === null ? {} : { raised_at: series.alarm.raised_at };
    const path = { drift_id: series.id };
    const { data } = await this.api.POST("/v1/drift/{drift_id}/acknowledge", { body, params: { path } });
    return data!;
  }

  /** Yields events until the measurement is done; a stream that breaks off goes on after the last one. */
  async *follow(id: string, after?: string): AsyncGenerator<MeasurementEvent> {
    let last = after;
    for (let fruitless = 0; fruitless <= FRUITLESS; fruitless += 1) {
      const response = await this.#fetch(`${this.#url}/v1/measurements/${encodeURIComponent(id)}/events`, {
        headers: { ...this.#headers, Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) },
      });
      if (!response.ok) throw await problemOf(response);
      for await (const { event, data, id: seen } of eventsOf(response)) {
        const read = JSON.parse(data) as Record<string, unknown>;
        if (event === "error") {
          const problem = read as unknown as Problem;
          if (problem.status !== 503) throw new ProblemError(problem.status, problem);
          break; // the replica ends; another one goes on
        }
        last = seen;
        fruitless = 0;
        yield { event, data: read, id: seen };
      }
      if (ENDS.has((await this.measurement(id)).state)) return;
      await new Promise((done) => setTimeout(done, PAUSE_MS));
    }
    throw new BrokenStreamError("the events broke off again and again");
  }
}
