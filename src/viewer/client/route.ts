// Addresses within the page: everything that can be seen has one, behind the `#`, so that a static copy has them too.

/** Where the page is: the segments of its address and its settings. */
export interface Route {
  readonly path: readonly string[];
  readonly query: Readonly<Record<string, string>>;
}

/** Reads an address as it stands behind the `#`; what is not encoded as an address is leads nowhere. */
export function parseRoute(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#\/?/, '').split('?');
  try {
    return {
      path: path.split('/').filter(Boolean).map(decodeURIComponent),
      query: Object.fromEntries(new URLSearchParams(query)),
    };
  } catch {
    return { path: ['nowhere'], query: {} };
  }
}

/** The address of a place; settings that are empty are left out. */
export function href(
  path: readonly string[],
  query: Readonly<Record<string, string | undefined>> = {},
): string {
  const set = Object.entries(query).flatMap(([key, value]): [string, string][] =>
    value ? [[key, value]] : [],
  );
  const settings = new URLSearchParams(set).toString();
  return `#/${path.map(encodeURIComponent).join('/')}${settings && `?${settings}`}`;
}
