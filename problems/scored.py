"""A network that scores its rows, for samplers that draw some rows more often than others."""

from npopt import backend
from problems.neural import Neural


class Scored(Neural):
    """row_norms() are s_b = |d l_b / d z_b| of the rows of the last training pass, z_b the outputs of row b.

    By the chain rule |grad f_b(x)| <= |J_b| s_b with J_b the Jacobian of z_b in x. So s_b is what the last layer alone
    can know of a row's gradient, and costs no pass: Katharopoulos & Fleuret, ICML 2018, equation 20, who bound |J_b| by
    one number for all rows. For the softmax cross-entropy s_b = |p - e_t|, between 0 and sqrt(2). AdaptiveImportance
    draws rows by it. Its weights keep the gradient unbiased, however good the bound is.
    """

    norms = None

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.recordings.refused = True  # on a GPU a recorded pass would leave its norms where nobody looks

    def seen(self, dz, weights):
        """As dL/dz_b = (w_b / B) dl_b/dz_b, w_b > 0."""
        count = dz.shape[0]
        rows = dz.reshape(count, -1)
        norms = backend.xp(rows).sqrt((rows * rows).sum(axis=1)) * count
        self.norms = norms if weights is None else norms / weights

    def row_norms(self):
        return self.norms
