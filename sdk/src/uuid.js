/** Returns a random UUID, also on pages without TLS, which do not have `crypto.randomUUID`. */
export const uuid = () => {
  try {
    return crypto.randomUUID();
  } catch (error) {
    // 10000000-1000-4000-8000-100000000000
    return (String(1e7) + -1e3 + -4e3 + -8e3 + -1e11).replace(/[018]/g, (digit) =>
      (+digit ^ ((Math.random() * 16) >> (+digit / 4))).toString(16),
    );
  }
};
