//! Questions of the same kind that many tasks ask at the same time, put together in few calls.
//!
//! The first one goes at once; while calls are under way the others gather. So one caller waits for nobody, and many
//! share what a call costs.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use blockyard_wire::{Problem, Result};
use tokio::sync::oneshot;

use crate::core::Core;

/// A kind of question.
pub trait Call: Sized + 'static {
    /// What is asked.
    type Question: 'static;
    /// What comes back for each.
    type Answer: 'static;
    /// Questions of one call at the most.
    const TOGETHER_MAX: usize;
    /// Calls at the same time: while one is under way, the next one fills.
    const CALLS_MAX: usize;

    /// Where the client keeps those that wait.
    fn batch(core: &Core) -> &Batch<Self>;

    /// Asks them together; the answers in their order.
    fn call(
        core: &Core,
        questions: &[Self::Question],
    ) -> impl Future<Output = Result<Vec<Result<Self::Answer>>>>;
}

/// Questions that wait to be asked.
pub struct Batch<C: Call> {
    waiting: RefCell<VecDeque<Waiting<C>>>,
    calls: Cell<usize>,
}

type Waiting<C> = (
    <C as Call>::Question,
    oneshot::Sender<Result<<C as Call>::Answer>>,
);

impl<C: Call> Default for Batch<C> {
    fn default() -> Self {
        Self {
            waiting: RefCell::default(),
            calls: Cell::new(0),
        }
    }
}

/// Asks one question, together with others that are there.
///
/// # Errors
/// The answer's own, or the one of the whole call.
pub async fn ask<C: Call>(core: &Rc<Core>, question: C::Question) -> Result<C::Answer> {
    let batch = C::batch(core);
    let (answer, answered) = oneshot::channel();
    batch.waiting.borrow_mut().push_back((question, answer));
    if batch.calls.get() < C::CALLS_MAX {
        batch.calls.set(batch.calls.get() + 1);
        core.tasks.spawn_local(work_off::<C>(core.clone()));
    }
    let answered = answered.await;
    answered.unwrap_or_else(|_| Err(Problem::retry("the client is closing")))
}

/// Calls until nothing waits.
async fn work_off<C: Call>(core: Rc<Core>) {
    let batch = C::batch(&core);
    loop {
        let (questions, answers): (Vec<_>, Vec<_>) = {
            let mut waiting = batch.waiting.borrow_mut();
            // Who has given up meanwhile wants no answer, but may still want the effect.
            let count = waiting.len().min(C::TOGETHER_MAX);
            waiting.drain(..count).unzip()
        };
        if questions.is_empty() {
            break;
        }
        let results = C::call(&core, &questions).await;
        let results =
            results.unwrap_or_else(|problem| questions.iter().map(|_| Err(problem.clone())).collect());
        for (answer, result) in answers.into_iter().zip(results) {
            // Whoever asked may have gone.
            let _ = answer.send(result);
        }
    }
    batch.calls.set(batch.calls.get() - 1);
}
