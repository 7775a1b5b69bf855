/* Swagger UI would fill made-up values into a form's optional fields, and send empty ones: here an empty field is
   absent. No highlighting: it takes seconds for an answer that holds an image as text. */
const leaveOut = (system) => {
  const sample = system.fn.getSampleSchema;
  return {
    components: { ParameterIncludeEmpty: () => null },
    fn: {
      getSampleSchema: (schema, type, ...rest) => {
        if (type !== false) return sample(schema, type, ...rest);
        const { type: kind, examples = [""] } = schema.toJS ? schema.toJS() : schema;
        return kind === "array" ? [] : examples[0];
      },
    },
  };
};
const show = (document) => SwaggerUIBundle({
  plugins: [leaveOut],
  /* The page calls the server that it came from, by its name and prefix of the moment: its policy allows no other. */
  spec: { ...document, servers: [{ url: new URL(".", location.href).href.slice(0, -1) }] },
  dom_id: "#page",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  defaultModelExpandDepth: 2,
  defaultModelsExpandDepth: 0,
  tryItOutEnabled: true,
  syntaxHighlight: false,
  validatorUrl: null,
});
fetch("openapi.json").then((answer) => answer.json()).then(show);
