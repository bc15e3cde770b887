// The endpoint's input schema as fields of a form, and a form's values as a request body. Pure functions.

/**
 * The fields in the schema's order:
 * {name, kind: "text" | "choice" | "number" | "switch" | "seed" | "image", default, min, max, isWhole, options,
 * maxLength, title, description, example, isRequired}
 */
export function fieldsOf(schema) {
  const required = new Set(schema.required ?? []);
  return Object.entries(schema.properties).map(([name, property]) => {
    const plain = property.anyOf?.find((option) => option.type !== "null") ?? property;
    return {
      name,
      kind: kindOf(name, plain),
      default: property.default ?? null,
      min: plain.minimum ?? null,
      max: plain.maximum ?? null,
      isWhole: plain.type === "integer",
      options: plain.enum ?? [],
      maxLength: plain.maxLength ?? null,
      title: property.title ?? name,
      description: property.description ?? "",
      example: property.examples?.[0] ?? null,
      isRequired: required.has(name),
    };
  });
}

function kindOf(name, property) {
  if (name === "image_url") return "image";
  if (name === "seed") return "seed"; // 64 bits: more than a number of JavaScript holds
  if (property.enum) return "choice";
  if (property.type === "boolean") return "switch";
  return property.type === "integer" || property.type === "number" ? "number" : "text";
}

/** The values that a request needs to name: required ones, and those that are not the default. */
export function chosen(fields, values) {
  const named = {};
  for (const field of fields) {
    const value = values[field.name];
    if (value === undefined || value === null || value === "") {
      // An emptied text is a choice where the default is not empty; anything else that is empty is the default.
      if (field.kind === "text" && value === "" && field.default && !field.isRequired) named[field.name] = "";
    } else if (field.isRequired || value !== field.default) named[field.name] = value;
  }
  return named;
}

/** A value as JSON. A seed is text of digits here and a number there: `JSON` would round it. */
function valueText(name, value) {
  return name === "seed" && /^-?\d+$/.test(value) ? String(value) : JSON.stringify(value);
}

/** A request body. */
export function bodyText(named) {
  const items = Object.entries(named).map(([name, value]) => `${JSON.stringify(name)}: ${valueText(name, value)}`);
  return `{${items.join(", ")}}`;
}

/** The values of a form for an earlier request's input; `seed` is its text. What it left out has its default. */
export function valuesOf(fields, input, seed) {
  const values = Object.fromEntries(fields.map((field) => [field.name, input?.[field.name] ?? field.default]));
  return { ...values, seed: seed ?? null };
}

/** Pixels of a video; `sizes` are the server's, [width, height] by resolution and aspect ratio. */
export function frameSize(values, sizes) {
  const [width, height] = sizes[values.resolution]?.[values.aspect_ratio] ?? Object.values(Object.values(sizes)[0])[0];
  return { width, height };
}
