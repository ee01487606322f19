// What generated modules need of the package.
declare module '@rivulet/client' {
  export interface Family<Events, Commands> {
    readonly eventTypes: readonly (keyof Events & string)[];
    readonly commands?: Commands;
  }
}
