/** Returns a random UUID, also on pages without TLS, which do not have `crypto.randomUUID`. */
export const uuid = () => {
  try {
    return crypto.randomUUID();
  } catch (error) {
    return '10000000-1000-4000-8000-100000000000'.replace(/[018]/g, (digit) =>
      (+digit ^ ((Math.random() * 16) >> (+digit / 4))).toString(16),
    );
  }
};
