// Folders of Kilosort that users drop or choose. Such a folder may hold hundreds of
// gigabytes, but only a few small files are read: those called as in `PARTS`, from the
// folder that holds `TIMES`. They are uploaded by the element `UPLOADER`, like all files.

function foldersOf(PARTS, TIMES, UPLOADER) {
  const DEPTH = 4;
  let name = "";  // of the folder of the next files

  // Found are [folder, file name, a promise of the file].
  function give(top, found) {
    const folders = found.filter(x => x[1] === TIMES).map(x => x[0]);
    folders.sort((a, b) => a.length - b.length);
    const folder = folders[0] ?? top;
    const own = folders.length ? found.filter(x => x[0] === folder) : [];
    name = folder.split("/").pop();
    if (!own.length) emitEvent("no-folder", name);
    Promise.all(own.map(x => x[2]())).then(files => {
      if (files.length) getElement(UPLOADER).$refs.qRef.addFiles(files);
    });
  }

  async function walk(entry, folder, depth, found) {
    if (entry.isFile) {
      if (PARTS.includes(entry.name))
        found.push([folder, entry.name, () => new Promise((a, b) => entry.file(a, b))]);
      return;
    }
    if (depth > DEPTH) return;
    const own = folder ? `${folder}/${entry.name}` : entry.name;
    const reader = entry.createReader();
    while (true) {  // a hundred at a time
      const some = await new Promise((a, b) => reader.readEntries(a, b));
      if (!some.length) return;
      for (const x of some) await walk(x, own, depth + 1, found);
    }
  }

  document.addEventListener("drop", event => {
    if (!event.target.closest?.(".q-uploader")) return;
    const items = [...(event.dataTransfer?.items ?? [])];
    const entry = items.map(x => x.webkitGetAsEntry?.()).find(x => x?.isDirectory);
    if (!entry) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    // Of nothing, so that the place for files no longer waits for any.
    const none = {dataTransfer: new DataTransfer(), bubbles: true, cancelable: true};
    event.target.dispatchEvent(new DragEvent("drop", none));
    const found = [];
    walk(entry, "", 0, found).then(() => give(entry.name, found));
  }, true);

  // In the page, since browsers forget an input that is nowhere.
  const input = document.createElement("input");
  Object.assign(input, {type: "file", webkitdirectory: true, hidden: true});
  input.onchange = () => {
    const parts = [...input.files].filter(x => PARTS.includes(x.name));
    const path = x => x.webkitRelativePath.split("/").slice(0, -1).join("/");
    const top = input.files[0]?.webkitRelativePath.split("/")[0] ?? "";
    give(top, parts.map(x => [path(x), x.name, async () => x]));
  };
  document.body.append(input);

  function choose() {
    input.value = "";  // or the same folder again would be no change
    input.click();
  }
  // What goes along with files that are uploaded.
  function fields() {
    const own = name;
    name = "";
    return [{name: "folder", value: own}];
  }
  return {choose, fields};
}
