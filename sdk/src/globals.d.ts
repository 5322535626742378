declare const VERSION: string;
/** Whether the script has cookies and automatic events. */
declare const FULL: boolean;
/** Integrity hash of the debug script. */
declare const DEBUG_INTEGRITY: string;

interface Window {
  sluiceLog?: unknown[][];
  sluice: ((...args: any[]) => unknown) & { q?: Iterable<any>[]; version?: string };
}

interface Navigator {
  globalPrivacyControl?: boolean;
}

interface Document {
  prerendering?: boolean;
}
