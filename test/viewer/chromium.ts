// A browser for tests: Debian's chromium, driven by playwright-core; null where there is none.
import fs from 'node:fs';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';

const places = [process.env.CHROMIUM ?? '', '/usr/bin/chromium', '/usr/bin/chromium-browser'];

/** Starts the browser; null where this machine has none. */
export async function openBrowser(): Promise<Browser | null> {
  const executablePath = places.find((file) => file !== '' && fs.existsSync(file));
  if (executablePath === undefined) return null;
  return chromium.launch({
    executablePath,
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
  });
}

export const wide = { width: 1280, height: 860 };
export const phone = { width: 390, height: 844 };

/** What went wrong on a page: console errors, exceptions, and requests that left the server. */
export function watchPage(page: Page, origin: string): string[] {
  const problems: string[] = [];
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') problems.push(message.text());
  });
  page.on('pageerror', (error) => problems.push(String(error)));
  page.on('request', (request) => {
    if (!request.url().startsWith(origin)) problems.push(`request to ${request.url()}`);
  });
  return problems;
}

export type { Browser, BrowserContext, Page };
