// What all other modules build pages with: Preact's functions, and htm bound to them.
import { h, render, createContext, Fragment } from './vendor/preact.js';
import { useState, useEffect, useRef, useMemo, useCallback, useContext, useId } from './vendor/hooks.js';
import htm from './vendor/htm.js';

const html = htm.bind(h);
export { html, h, render, createContext, Fragment, useState, useEffect, useRef, useMemo, useCallback, useContext, useId };
