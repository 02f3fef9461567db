// SPDX-License-Identifier: Apache-2.0
// Shows the volumes in the page by niivue. data-state of the section says how it went.
(async () => {
  const section = document.getElementById("viewer");
  const status = document.getElementById("viewer-status");
  const canvas = document.getElementById("viewer-canvas");
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const fail = (error) => {
    section.dataset.state = "failed";
    status.textContent = `The viewer could not start: ${error.message || error}. It needs WebGL 2.`;
  };
  if (!canvas.getContext("webgl2")) {
    fail("this browser has none");
    return;
  }
  try {
    const { Niivue, NVImage } = niivue;
    const view = new Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [1, 1, 1, 0.55],
      crosshairWidth: 0.7,
      crosshairWidthUnit: "mm",
      crosshairGap: 8,
      fontColor: [0.8, 0.82, 0.85, 1],
      fontMinPx: 11,
      isRadiologicalConvention: true,
      sagittalNoseLeft: true,
      multiplanarLayout: 0,
      multiplanarShowRender: 0,
      dragAndDropEnabled: false,
      scrollRequiresFocus: true,
      isColorbar: false,
      loadingText: "",
      logLevel: "error",
    });
    await view.attachToCanvas(canvas);
    const load = (entry, name, options) =>
      NVImage.loadFromBase64({ base64: entry, name: `${name}.nii.gz`, ...options });
    const grey = { colormap: "gray", cal_min: 0, cal_max: 255 };
    const loaded = [await load(data.images[0].data, "image0", grey)];
    const labels = await load(data.labels, "labels", { opacity: 0.5 });
    labels.setColormapLabel(data.colours);
    const show = (image) => {
      view.volumes = [image, labels];
      view.back = image;
      view.overlays = [labels];
      view.updateGLVolume();
    };
    show(loaded[0]);
    view.scene.crosshairPos = view.mm2frac(data.centre);

    view.onLocationChange = (where) => {
      const place = ["x", "y", "z"].map((axis, i) => `${axis} ${where.mm[i].toFixed(0)}`);
      const value = where.values[1] ? Math.round(where.values[1].value) : 0;
      const name = data.colours.labels[data.colours.I.indexOf(value)];
      status.textContent = `${place.join(", ")} mm${name ? ` · ${name}` : ""}`;
    };
    document.getElementById("viewer-opacity").addEventListener("input", (event) => {
      view.setOpacity(1, Number(event.target.value));
    });
    for (const button of document.querySelectorAll("#viewer input[name=contrast]")) {
      button.addEventListener("change", async () => {
        const index = Number(button.value);
        loaded[index] ??= await load(data.images[index].data, `image${index}`, grey);
        show(loaded[index]);
      });
    }
    view.drawScene();
    view.createOnLocationChange();
    // In the same task as drawing: later the buffer may be empty.
    const gl = view.gl;
    const pixels = new Uint8Array(4 * gl.drawingBufferWidth * gl.drawingBufferHeight);
    gl.readPixels(0, 0, gl.drawingBufferWidth, gl.drawingBufferHeight, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
    const colours = new Set(new Uint32Array(pixels.buffer));
    section.dataset.colours = colours.size;
    section.dataset.state = colours.size > 1 ? "ready" : "blank";
  } catch (error) {
    fail(error);
  }
})();
