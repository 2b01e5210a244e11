/** What can go wrong with a service. No error holds the key, a prompt or an answer. */

/** Members of a problem (RFC 9457) as the services answer it. */
export interface Problem {
  type?: string;
  title?: string;
  status: number;
  detail?: string;
  code?: string;
  hint?: string;
  retry_after?: number;
  correlation_id?: string | null;
}

/** The service says no. Decide by `code`. */
export class ProblemError extends Error {
  readonly status: number;
  readonly code: string;
  readonly problem: Problem;

  constructor(status: number, problem: Partial<Problem>) {
    const code = problem.code ?? `http_${status}`;
    super(`${status} ${code}: ${problem.detail ?? "the service gave no reason"}`);
    this.name = "ProblemError";
    this.status = status;
    this.code = code;
    this.problem = { ...problem, status };
  }
}

/** The connection broke before the answer was whole, or what came is no answer of a service. */
export class BrokenStreamError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "BrokenStreamError";
  }
}

/** Reads the error of an answer that is none; what is no problem is told by its status alone. */
export async function problemOf(response: Response): Promise<ProblemError> {
  const members: unknown = await response.json().catch(() => ({}));
  const problem = typeof members === "object" && members !== null ? (members as Partial<Problem>) : {};
  return new ProblemError(response.status, problem);
}
