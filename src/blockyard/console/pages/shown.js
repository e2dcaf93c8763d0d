// Drives and libraries are there when a target shows them: made with one, and taken out of all.
import { edit, etagOf, get, path, put, remove } from '../api.js';
import { nameLike } from './targets.js';

export const NEW_TARGET = ' new';

/** Have a target show an optical drive: a new one, or another under the first LUN that is free. */
export async function showDrive(name, target) {
  const targets = await get('/targets');
  if (targets.some((each) => Object.values(each.luns).includes(name))) return;
  if (target === NEW_TARGET) { await put(path('targets', nameLike(targets, name)), { luns: { 0: name } }); return; }
  const { luns } = targets.find((each) => each.name === target);
  const where = path('targets', target);
  await edit('PUT', where, { volume: name }, `${where}/luns/${[...Array(256).keys()].find((lun) => !(lun in luns))}`);
}

export async function showLibrary(name) {
  const targets = await get('/targets');
  if (!targets.some((each) => each.library === name)) await put(path('targets', nameLike(targets, name)), { library: name });
}

/** Take a drive or a library out of the targets that show it, and out of the configuration. Targets that have nothing else go too. */
export async function takeOut(kind, name, names) {
  const etag = await etagOf(path(kind, name)); // as it was when somebody decided that
  const targets = (await get('/targets')).filter((each) => names.includes(each.name));
  for (const target of targets) {
    const where = path('targets', target.name), others = Object.entries(target.luns).filter(([, shown]) => shown !== name);
    if (target.library === name || !others.length) await edit('DELETE', where);
    else for (const [lun] of Object.entries(target.luns).filter(([, shown]) => shown === name)) await edit('DELETE', where, undefined, `${where}/luns/${lun}`);
  }
  await remove(path(kind, name), etag);
}
