// What generated modules need of the package.
declare module '@rivulet/client' {
  export interface Family<Events, Commands> {
    readonly eventTypes: Readonly<Record<string, readonly string[]>>;
    readonly types?: { events: Events; commands: Commands };
  }
}
