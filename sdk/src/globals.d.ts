declare const VERSION: string;
/** Whether the script has cookies and automatic events. */
declare const FULL: boolean;

interface Window {
  sluice: ((...args: any[]) => unknown) & { q?: Iterable<any>[]; version?: string };
}

interface Navigator {
  globalPrivacyControl?: boolean;
}

interface Document {
  prerendering?: boolean;
}
