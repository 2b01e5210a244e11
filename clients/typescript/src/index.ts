export {
  CoordinationClient,
  type DriftSeries,
  type Measurement,
  type MeasurementEvent,
  type MeasurementRequest,
} from "./coordination.js";
export { BrokenStreamError, ProblemError, type Problem } from "./errors.js";
export { eventsOf, type ServerEvent } from "./events.js";
export {
  HamiltonianClient,
  type Alarm,
  type Analysis,
  type AnalysisSummary,
  type AnalyzeRequest,
  type ClientOptions,
  type Finished,
  type StreamEvent,
  type StreamRequest,
  type Token,
} from "./hamiltonian.js";
