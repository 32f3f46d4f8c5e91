//! Colours: a hue per module (amber, blue, green: told apart by all common kinds of colour blindness), darker for
//! backwards. They are CSS classes, so one style sheet serves light and dark surroundings.

use crate::schedule::table::{ModuleKind, Op, Phase};

/// A kind of bar: class, module, what the legend says.
pub(super) struct Style {
    /// CSS class.
    pub class: &'static str,
    /// Whose bars.
    pub kind: ModuleKind,
    /// Of which phase.
    pub phase: Phase,
}

const fn style(class: &'static str, kind: ModuleKind, phase: Phase) -> Style {
    Style { class, kind, phase }
}

/// In the order of the legend.
pub(super) const STYLES: [Style; 15] = [
    style("ef", ModuleKind::Encoder, Phase::Forward),
    style("er", ModuleKind::Encoder, Phase::Recompute),
    style("eb", ModuleKind::Encoder, Phase::Backward),
    style("ei", ModuleKind::Encoder, Phase::BackwardInput),
    style("ew", ModuleKind::Encoder, Phase::BackwardWeight),
    style("lf", ModuleKind::Llm, Phase::Forward),
    style("lr", ModuleKind::Llm, Phase::Recompute),
    style("lb", ModuleKind::Llm, Phase::Backward),
    style("li", ModuleKind::Llm, Phase::BackwardInput),
    style("lw", ModuleKind::Llm, Phase::BackwardWeight),
    style("gf", ModuleKind::Generator, Phase::Forward),
    style("gr", ModuleKind::Generator, Phase::Recompute),
    style("gb", ModuleKind::Generator, Phase::Backward),
    style("gi", ModuleKind::Generator, Phase::BackwardInput),
    style("gw", ModuleKind::Generator, Phase::BackwardWeight),
];

/// The style of an op's bar; `None` for what is not computation.
pub(super) fn style_of(op: &Op) -> Option<&'static Style> {
    let Op::Compute { module, phase, .. } = op else { return None };
    STYLES.iter().find(|style| style.kind == module.kind() && style.phase == *phase)
}

/// CSS class of a module's memory area.
pub(super) fn memory_class(kind: ModuleKind) -> &'static str {
    match kind {
        ModuleKind::Encoder => "me",
        ModuleKind::Llm => "ml",
        ModuleKind::Generator => "mg",
    }
}

/// The style sheet. Fills come with the ink that is readable on them: `.t` is dark ink, `.u` light.
pub(super) const CSS: &str = "
.bg{fill:#fff}.ink{fill:#1f2937}.dim{fill:#6b7280}.track{fill:#eef0f3}.grid{stroke:#d9dde3;stroke-width:1}
.end{stroke:#1f2937;stroke-width:1.5;stroke-dasharray:3 3}
.ef,.er,.me{fill:#f5bd4f}.eb,.ei{fill:#cf7f0a}.ew{fill:#96560a}
.lf,.lr,.ml{fill:#9cc9ee}.lb,.li{fill:#3b7fc4}.lw{fill:#1d4f8c}
.gf,.gr,.mg{fill:#7fd3b5}.gb,.gi{fill:#1b9470}.gw{fill:#0b5f47}
.er,.lr,.gr{fill-opacity:.55}
text{font-family:ui-sans-serif,system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}
.t,.u{font-size:11px;text-anchor:middle;pointer-events:none;font-variant-numeric:tabular-nums}
.t{fill:#1f2937}.u{fill:#fff}
@media (prefers-color-scheme:dark){.bg{fill:#0f141b}.ink{fill:#e6e9ee}.dim{fill:#9aa4b2}.track{fill:#1b222c}
.grid{stroke:#2a323e}.end{stroke:#e6e9ee}}
";
